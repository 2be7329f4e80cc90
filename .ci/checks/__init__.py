"""What .ci/smoke checks, one file per concern.

expect      checks that hold or end the run
stack       the processes: gateway, collector, Jaeger, Prometheus, each as docker/ configures it
requests    a client of the gateway
serving     answers, streams, refusals, the end of the process
load        loadgen's run and its records
metrics     /metrics, and what the collector counts from spans
jaeger      Jaeger's query API
traces      every request's trace, its tree, links and attributes; search
sampling    what the collector keeps
dashboards  every query of Grafana's dashboards
alerts      each alert, provoked
"""
