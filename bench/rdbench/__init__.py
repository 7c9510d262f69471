"""The benchmark runner behind bench/run.

engines   what can run a workload: the host's CPU, ringdown in its settings, QEMU, others
suites    what is run and how its output is read
session   one process under measurement
store     results of one run of the runner, kept as they come in, so that it can be resumed
summary   ratios, medians, spread
account   where the time went
scale     curves: costs against sizes
leftout   what was not measured, and why
report    table, JSON, HTML
"""
