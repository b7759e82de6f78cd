# The book, from the committed outputs, and the command line. No GPU: torch is the CPU build.
#   docker build -t memlib .
#   docker run --rm -p 8000:8000 memlib                                  # the book at http://localhost:8000
#   docker run --rm -v "$PWD/images:/data:ro" memlib memlib --help       # the command line, with a folder of yours
FROM node:20-slim AS vendor
WORKDIR /work
COPY book/package.json book/package-lock.json book/vendor.mjs book/
RUN node book/vendor.mjs

FROM python:3.11-slim
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1 OMP_NUM_THREADS=1 MEMLIB_CACHE=/home/reader/cache
RUN useradd --create-home reader
WORKDIR /memlib
COPY pyproject.toml constraints.txt setup.py README.md LICENSE ./
COPY memlib memlib
COPY notebooks notebooks
COPY results results
RUN pip install -c constraints.txt -e '.[book]'
COPY _config.yml _toc.yml ./
COPY book book
COPY --from=vendor /work/book/_static/vendor book/_static/vendor
RUN jupyter-book build . && chown -R reader /memlib
USER reader
EXPOSE 8000
CMD ["python", "-m", "http.server", "8000", "--directory", "_build/html"]
