# bids_cmb: cerebral microbleeds on SWI, T2*-weighted GRE and QSM. Research use only.
# CPU:  docker build --build-arg TORCH_SPEC=torch==2.13.0 --build-arg TORCH_INDEX_URL=<PyTorch CPU index> -t bids-cmb:cpu .
# CUDA: docker build -t bids-cmb:cuda .
FROM python:3.11-slim-bookworm AS build
ARG TORCH_SPEC="torch>=2.2"
ARG TORCH_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/bids-cmb \
 && /opt/bids-cmb/bin/pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$TORCH_SPEC"
WORKDIR /src
COPY constraints.txt pyproject.toml ./
# torch is already there, in the build that was asked for. What nobody needs at run time goes: headers, tests, tools.
RUN grep -v '^torch==' constraints.txt > /tmp/constraints.txt \
 && python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > /tmp/requirements.txt \
 && /opt/bids-cmb/bin/pip install -c /tmp/constraints.txt -r /tmp/requirements.txt \
 && site=/opt/bids-cmb/lib/python3.11/site-packages \
 && rm -rf "$site"/torch/include "$site"/torch/test "$site"/torch/share/cmake \
 && find "$site"/torch/bin -type f ! -name torch_shm_manager -delete \
 && find "$site"/torch/lib -name '*.a' -delete \
 && for package in pandas scipy sklearn statsmodels skimage nilearn sympy networkx matplotlib mpl_toolkits bids nibabel; do \
      find "$site/$package" -depth -type d -name tests -exec rm -rf {} +; done \
 && { python3 -m compileall -q -j 0 -x '/(sympy|statsmodels)/' "$site" || true; }
COPY README.md LICENSE ./
COPY models models
COPY bids_cmb bids_cmb
RUN /opt/bids-cmb/bin/pip install --no-deps . \
 && /opt/bids-cmb/bin/python -m compileall -q /opt/bids-cmb/lib/python3.11/site-packages/bids_cmb \
 && /opt/bids-cmb/bin/pip uninstall -y -q pip setuptools

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
