# Built by `make docker-build`, which puts the static binary, CA roots, /tmp and the state folder into rootfs.tar:
# nothing is downloaded, and the file modes are kept.
FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Drover" \
      org.opencontainers.image.description="Host agent and control server for container machines" \
      org.opencontainers.image.source="https://github.com/droverhq/drover" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
ADD rootfs.tar /
ENV PATH=/ HOME=/var/lib/drover SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
VOLUME /var/lib/drover
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["/drover", "health"]
# A URL as the last word of `docker run` replaces the word "agent", and means it.
ENTRYPOINT ["/drover"]
CMD ["agent"]
