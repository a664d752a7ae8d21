# medseg as an image, from the wheel of this folder:
#   docker build -t medseg .
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" -u "$(id -u):$(id -g)" medseg doctor
# Without TORCH_INDEX torch has CUDA. For the small CPU image name PyTorch's index of CPU wheels:
#   docker build -t medseg:cpu --build-arg TORCH_INDEX=URL .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=
ARG EXTRAS=dicom,export
COPY constraints.txt /tmp/
COPY --from=build /wheels /tmp/wheels
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir -c /tmp/constraints.txt --index-url "$TORCH_INDEX" torch; fi \
    && pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /tmp/wheels/medseg-*.whl)[$EXTRAS]" \
    && rm -r /tmp/wheels /tmp/constraints.txt \
    && useradd --create-home medseg
# Whoever runs it, the home folder may be another's: caches and what medseg remembers go to /tmp.
ENV MPLCONFIGDIR=/tmp/matplotlib XDG_STATE_HOME=/tmp/state
USER medseg
WORKDIR /work
ENTRYPOINT ["medseg"]
CMD ["--help"]
