# bids_cmb: cerebral microbleeds on SWI, T2*-weighted GRE and QSM. Research use only.
# CPU:  docker build --build-arg TORCH_INDEX_URL=<PyTorch CPU index> -t bids-cmb:cpu .
# CUDA: docker build -t bids-cmb:cuda .
# Files are checked against the hashes in requirements/, whatever index they come from. Not checked: a torch of another
# version, and CUDA's libraries, whose versions torch names.
FROM python:3.11-slim-bookworm AS build
ARG TORCH_SPEC="torch==2.13.0"
ARG TORCH_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements/*.txt requirements/
RUN python3 -m venv /opt/bids-cmb \
 && /opt/bids-cmb/bin/pip install --require-hashes --no-deps -r requirements/build.txt \
 && /opt/bids-cmb/bin/pip install --require-hashes --no-deps --no-build-isolation -r requirements/run.txt
# First the file that the index has, then the check: the same however the index names the build.
RUN pip=/opt/bids-cmb/bin/pip \
 && if [ -n "$TORCH_INDEX_URL" ]; then export PIP_INDEX_URL="$TORCH_INDEX_URL"; fi \
 && $pip download --no-deps -d /tmp/torch "$TORCH_SPEC" \
 && if grep -qF "$TORCH_SPEC \\" requirements/torch.txt; then \
      $pip install --require-hashes --no-deps --no-index --find-links /tmp/torch -r requirements/torch.txt; fi \
 && $pip install --find-links /tmp/torch "$TORCH_SPEC" \
 && rm -rf /tmp/torch
COPY docker/prune.sh docker/
RUN site=/opt/bids-cmb/lib/python3.11/site-packages \
 && sh docker/prune.sh "$site" \
 && { python3 -m compileall -q -j 0 -x '/(sympy|statsmodels)/' "$site" || true; }
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY bids_cmb bids_cmb
RUN /opt/bids-cmb/bin/pip install --no-deps --no-build-isolation . \
 && /opt/bids-cmb/bin/python -m compileall -q /opt/bids-cmb/lib/python3.11/site-packages/bids_cmb \
 && /opt/bids-cmb/bin/pip uninstall -y -q -r requirements/build.txt pip

FROM python:3.11-slim-bookworm
ARG VERSION="0.1.0"
LABEL org.opencontainers.image.title="bids_cmb" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.description="BIDS App: cerebral microbleeds on SWI, T2*-weighted GRE and QSM. Research use only." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/bids-cmb /opt/bids-cmb
# Any user id, no HOME, read-only root: nothing is written outside OUTPUT_DIR and /tmp.
ENV PATH=/opt/bids-cmb/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 MPLCONFIGDIR=/tmp/matplotlib
RUN bids-cmb --version && ldconfig
ENTRYPOINT ["bids-cmb"]
