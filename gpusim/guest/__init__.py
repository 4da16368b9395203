"""The guest: what a VM writes, as pure functions of time and of its vCPUs' run time."""
