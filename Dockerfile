# JupyterLab with the notebooks, and everything that `make book` needs:
#   docker build -t ttame . && docker run -p 8888:8888 ttame
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /ttame
COPY . .
RUN make setup
ENV PATH=/ttame/.venv/bin:$PATH OMP_WAIT_POLICY=PASSIVE
EXPOSE 8888
CMD ["jupyter", "lab", "notebooks", "--ip=0.0.0.0", "--no-browser", "--allow-root"]
