# A nats-server image without a registry, from the static binary of a package.
FROM scratch
COPY nats-server /nats-server
USER 65532:65532
EXPOSE 4222 8222
ENTRYPOINT ["/nats-server"]
