# Serves a bundle that is mounted at /model.pneumo, as a user without rights. See docs/using_a_model.md.
FROM python:3.11-slim-bookworm

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app

COPY requirements.lock ./
RUN pip install --require-hashes --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-deps --no-build-isolation . \
  && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin pneumo

USER 10001
ENV HOME=/tmp
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["pneumo", "serve", "--model", "/model.pneumo", "--host", "0.0.0.0"]
