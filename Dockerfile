# docker build -t avsc-e2e:cuda .        PyTorch of the package index, which brings CUDA
# docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu -t avsc-e2e:cpu .     without CUDA
# docker run --rm --shm-size 8g [--gpus all] -v "$PWD/demo:/src/demo" avsc-e2e:cpu                runs `make demo`
FROM python:3.11-slim
ARG TORCH_INDEX=""
RUN apt-get update && apt-get install -y --no-install-recommends make gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN if [ -n "$TORCH_INDEX" ]; then \
      python -m venv .venv && \
      .venv/bin/python -m pip install --no-cache-dir --index-url "$TORCH_INDEX" \
        $(grep -E "^(torch|torchaudio|torchvision)==" constraints.txt); \
    fi && make install
ENV PATH="/src/.venv/bin:$PATH"
CMD ["make", "demo"]
