# From a static binary that is already built (scripts/images.sh prepares the context).
FROM scratch
LABEL org.opencontainers.image.title="swarm" \
      org.opencontainers.image.description="One MCP endpoint in front of a fleet" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY swarm /swarm
COPY --chown=65532:65532 empty /data
COPY --chown=65532:65532 empty /flags
COPY --chown=65532:65532 empty /tmp
USER 65532:65532
VOLUME /data
EXPOSE 7700 7600 7610 7620/udp
HEALTHCHECK --interval=2s --timeout=3s --retries=15 CMD ["/swarm", "healthcheck"]
ENTRYPOINT ["/swarm"]
CMD ["up", "--data", "/data", "--mcp", "0.0.0.0:7700"]
