module anomalyops.io/hack/cluster/pause

go 1.26.0
