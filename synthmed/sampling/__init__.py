"""Drawing volumes and streaming them to disk."""
