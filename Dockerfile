# docker build -t hi3d .                            on the CPU
# docker build -t hi3d --build-arg DEVICE=cuda .    with CUDA; run it with --gpus all
# docker run --rm -v "$PWD:/work" -v "$HOME/models:/models:ro" hi3d generate photo.jpg --output outputs
ARG DEVICE=cpu

FROM debian:12-slim AS base-cpu
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

# gsplat compiles its kernels at their first use, which takes the CUDA compiler.
FROM nvidia/cuda:13.0.0-devel-ubuntu24.04 AS base-cuda
ENV TORCH_EXTENSIONS_DIR=/tmp/hi3d/torch_extensions

FROM base-${DEVICE}
# gcc builds the C kernels at their first use; EGL is the OpenGL rasterizer's.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates gcc g++ libc6-dev libegl1 libgl1-mesa-dri ninja-build python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 hi3d

WORKDIR /opt/hi3d
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.txt ./
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --quiet $(grep '^torch==' requirements.txt)
RUN /opt/venv/bin/pip install --quiet -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY data data
COPY scripts scripts
COPY hi3d hi3d
RUN /opt/venv/bin/pip install --quiet --no-deps -e .

# Caches are written where any user may write, so that --user works too. Weights are mounted at /models.
ENV PATH=/opt/venv/bin:$PATH HI3D_CACHE_DIR=/tmp/hi3d HF_HOME=/tmp/hi3d/hub MPLCONFIGDIR=/tmp/hi3d
VOLUME /models
USER hi3d
WORKDIR /work
ENTRYPOINT ["hi3d"]
CMD ["--help"]
