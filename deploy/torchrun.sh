#!/usr/bin/env bash
# Run on each machine: HEAD=host-of-the-first STORE=/shared/store bash deploy/torchrun.sh
# One to four machines: when one is lost, the others go on from last.ckpt; one that starts later joins them.
set -euo pipefail
: "${HEAD:?name of the first machine}" "${STORE:?folder or URL of the store}"
exec torchrun \
  --nnodes "${NODES:-1:4}" --nproc-per-node "${GPUS:-8}" --max-restarts 100 \
  --rdzv-backend c10d --rdzv-endpoint "$HEAD:29400" --rdzv-id "${JOB:-avsc}" \
  -m avsc_e2e train "${STAGE:-zhang_ioa/video}" --data.store "$STORE" --data.order stream \
  --runs "${RUNS:-runs}" --save-every "${SAVE:-500}" --requeue
