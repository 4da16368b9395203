"""The guest: the writes of a VM as pure functions of time and of vCPU run time."""
