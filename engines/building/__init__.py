"""From a bundle's graphs to engines: keys, builds, checks, measurements."""
