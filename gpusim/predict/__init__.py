"""What a VM's dirty rate, as QEMU measures it, says of its migration: `gpusim-predict`."""
