# docker build -t avsc-e2e .                                     PyTorch of the package index, which brings CUDA
# docker build --build-arg PIP_EXTRA_INDEX_URL=URL -t avsc-e2e:cpu .    without CUDA: the index of PyTorch's CPU wheels
# docker run --rm --shm-size 8g [--gpus all] -v "$PWD/demo:/src/demo" avsc-e2e                    runs `make demo`
FROM python:3.11-slim
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update && apt-get install -y --no-install-recommends make gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make install
ENV PATH="/src/.venv/bin:$PATH"
CMD ["make", "demo"]
