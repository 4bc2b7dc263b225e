#!/bin/sh
# This server is Drover. The container that evaluates this script is an original Rancher agent: it cannot work with
# this server's engine, so its host is handed over to Drover's agent, which takes over its identity and its keys.
set -e

REQUIRED_IMAGE="%IMAGE%"
DETECTED_CATTLE_AGENT_IP="%CLIENT_IP%"
CA_CHECKSUM="%CA_CHECKSUM%"

: "${CATTLE_AGENT_IP:=${DETECTED_CATTLE_AGENT_IP}}"
export CATTLE_AGENT_IP CATTLE_URL CATTLE_ACCESS_KEY CATTLE_SECRET_KEY CATTLE_HOST_LABELS
export CATTLE_CA_CHECKSUM="${CA_CHECKSUM}"

if ! command -v docker >/dev/null 2>&1; then
    echo "drover: there is no docker command here; join this host with the one-liner of the server instead" >&2
    exit 1
fi
if docker inspect drover-agent >/dev/null 2>&1; then
    docker start drover-agent >/dev/null
    exit 0
fi
docker run -d --name drover-agent --restart=unless-stopped --net=host \
    -v /var/run/docker.sock:/var/run/docker.sock \
    -v /var/lib/drover:/var/lib/drover \
    -v /var/lib/rancher:/var/lib/rancher \
    -e CATTLE_URL -e CATTLE_ACCESS_KEY -e CATTLE_SECRET_KEY -e CATTLE_AGENT_IP -e CATTLE_HOST_LABELS -e CATTLE_CA_CHECKSUM \
    "${REQUIRED_IMAGE}" agent
exit 0

# The server's certificate authority:
: <<'CERT'
%CERT%CERT
