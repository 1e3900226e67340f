# Runs `make demo`: docker build -t avsc-e2e . && docker run --rm --shm-size 8g -v "$PWD/demo:/src/demo" avsc-e2e
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make install
CMD ["make", "demo"]
