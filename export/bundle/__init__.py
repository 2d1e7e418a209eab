"""Writing a bundle from a source: the plan, the weights, the graphs and the manifest, in a folder that can be continued."""
