# Consul where there is no registry: the binary of the context, with the user and the directories
# that hashicorp/consul has.
ARG BASE
FROM ${BASE}
COPY consul /usr/bin/consul
RUN useradd --system consul && install -d -o consul -g consul /consul/data /consul/config
USER consul
