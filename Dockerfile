# The server without a MongoDB of its own; compose.yaml brings three.
# Not built in our tests, which have no Docker; the wheel that it installs is.

FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY adapters adapters
COPY fhir_server fhir_server
COPY profiles profiles
COPY terminology terminology
RUN python -m venv /opt/fhir-server \
    && /opt/fhir-server/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin fhir
COPY --from=build /opt/fhir-server /opt/fhir-server
ENV PATH=/opt/fhir-server/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/live', timeout=4)"]
ENTRYPOINT ["fhir-server"]
# In development the server listens on loopback only, which nobody outside of a container reaches:
# a container is run with FHIR_MODE=production and what that asks for (compose.yaml,
# docs/security.md).
CMD ["serve"]
