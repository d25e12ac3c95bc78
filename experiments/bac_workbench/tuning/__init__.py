"""The fastest setting of a policy that is proven not worse than the full policy."""
