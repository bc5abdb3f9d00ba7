# syntax=docker/dockerfile:1
# Three images, pinned by constraints.txt:
#   docker build --target cpu  -t pagevec:cpu .
#   docker build --target cuda -t pagevec:cuda .
#   docker build --target ray  -t pagevec:ray .      (CUDA, for deploy/ray/rayservice.yaml)

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/pagevec/bin:$PATH
RUN python -m venv /opt/pagevec
WORKDIR /build
# Dependencies first, with an empty package, so that a change of the code does not reinstall them.
COPY pyproject.toml constraints.txt README.md ./
RUN mkdir -p src/pagevec && echo '__version__ = "0"' > src/pagevec/__init__.py

# PyTorch's own index has builds without CUDA; the wheels on PyPI include CUDA.
FROM base AS cpu-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu \
        torch torchvision && \
    pip install --constraint constraints.txt '.[serve,pdf,postgres,redis]'
COPY src src
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --force-reinstall .

FROM base AS cuda-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt '.[serve,pdf,postgres,redis]'
COPY src src
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --force-reinstall .

FROM cuda-packages AS ray-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt 'pagevec[ray]'

# The base of all three: a user who owns only /data, with weights and caches.
FROM python:3.11-slim-bookworm AS runtime
# Fonts for PDFs that do not bring their own: without them their pages are blank. Tini, because the
# first process of a container loses signals that it has no handler for, and reaps orphans.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends 'fonts-noto-cjk=1:2022*' 'fonts-noto-core=2020*' \
        'tini=0.19.*' && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 10001 --create-home --home-dir /data pagevec
ENV PYTHONUNBUFFERED=1 \
    PATH=/opt/pagevec/bin:$PATH \
    PAGEVEC_HOST=0.0.0.0 \
    PAGEVEC_LOG_FORMAT=json \
    HF_HOME=/data/huggingface
WORKDIR /data
USER 10001
EXPOSE 8765
# Healthy once the model is ready; the first start may download gigabytes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python", "-m", "pagevec.probe"]
# -s: also where a platform has an init of its own, as `init: true` in Compose.
ENTRYPOINT ["tini", "-s", "--"]
CMD ["pagevec", "serve"]

FROM runtime AS cpu
COPY --from=cpu-packages /opt/pagevec /opt/pagevec

FROM runtime AS ray
ENV RAY_USAGE_STATS_ENABLED=0 \
    PAGEVEC_DEVICE=cuda
USER 0
# KubeRay's probes use wget.
RUN apt-get update && apt-get install --yes --no-install-recommends wget=1.21.* && \
    rm -rf /var/lib/apt/lists/*
USER 10001
# KubeRay starts and monitors the pods itself.
HEALTHCHECK NONE
COPY --from=ray-packages /opt/pagevec /opt/pagevec

FROM runtime AS cuda
COPY --from=cuda-packages /opt/pagevec /opt/pagevec
# For NVIDIA's container toolkit. A GPU that is missing or cannot be used is an error here, not a
# start on the CPU.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PAGEVEC_DEVICE=cuda \
    PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
