"""The coordinator: judges what the regions saw and publishes it to etcd."""
