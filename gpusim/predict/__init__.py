"""`gpusim-predict` predicts a migration from the VM's dirty rate, as QEMU measures it."""
