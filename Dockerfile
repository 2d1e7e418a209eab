# The server in a container, as a user without rights. docs/server.md says how it is run.
#
#   docker build -t costroute-rt .
#   docker build -t costroute-rt:cuda --build-arg BASE=nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04 --build-arg EXTRA=cuda .
#
# BASE: Debian or Ubuntu, with or without Python. EXTRA: what runs the model (README.md, "Install").
# ENGINES: `start` builds the engines at the first start, into the volume; `image` puts those for a machine like this one into the image.
ARG BASE=python:3.13-slim

FROM ${BASE} AS python
RUN python3 -c "import ensurepip, venv" 2>/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; }

FROM python AS build
ARG EXTRA=cpu
COPY . /source
RUN python3 -m venv /app && /app/bin/pip install --no-cache-dir "/source[${EXTRA},serve]"

FROM python
RUN useradd --uid 10001 --user-group --home-dir /store --no-create-home --shell /usr/sbin/nologin costroute \
    && install --directory --owner=costroute --group=costroute /store
COPY --from=build /app /app
ARG ENGINES=start
RUN mkdir /app/engines \
    && if [ "$ENGINES" = image ]; then COSTROUTE_HOME=/app/engines /app/bin/costroute-rt build-engines; fi
ENV PATH=/app/bin:$PATH COSTROUTE_HOME=/store COSTROUTE_EXTRA_STORES=/app/engines PYTHONDONTWRITEBYTECODE=1
VOLUME /store
EXPOSE 7870
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7870/healthz', timeout=4)"]
ENTRYPOINT ["costroute-rt", "serve", "--host", "0.0.0.0", "--token-file", "/run/secrets/costroute_token"]
CMD ["--warm"]
