# docker build -t jensen .        Nothing of the data is inside; runs/ is mounted. scripts/check-image builds it and tries it.
#
# BASE is any image with Python 3.11 or newer. In a plain one pip's torch brings its CUDA along, so that the host adds no
# more than the driver; one that has torch already, for CUDA or for the CPU, keeps its own.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
# Another torch than the newest, and where pip looks: as pip's own variables.
ARG TORCH="torch torchvision"
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT
RUN python3 -m venv --system-site-packages /opt/jensen
ENV PATH=/opt/jensen/bin:$PATH
WORKDIR /src
# What takes minutes to install depends on pyproject.toml alone, so that a change of the sources leaves it as it is.
COPY pyproject.toml ./
# hadolint ignore=SC2086,DL3013
RUN pip install --no-cache-dir ${TORCH} hatchling \
 && python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' >/dependencies \
 && pip install --no-cache-dir --requirement /dependencies
COPY . ./
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${BASE}
COPY --from=build /opt/jensen /opt/jensen
# A number needs no account in the base; torch asks for a name all the same.
ENV PATH=/opt/jensen/bin:$PATH HOME=/tmp USER=jensen JENSEN_CACHE=/jensen/runs/.cache PYTHONUNBUFFERED=1
WORKDIR /jensen
RUN install -d -m 0777 /jensen/runs
USER 1000:1000
# Without a shell in between, so that SIGTERM arrives: the run saves its step and ends.
ENTRYPOINT ["python", "-m", "jensen.train"]
