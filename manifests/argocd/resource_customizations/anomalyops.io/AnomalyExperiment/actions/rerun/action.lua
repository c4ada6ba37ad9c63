local os = require("os")

obj.spec.runPolicy = obj.spec.runPolicy or {}
obj.spec.runPolicy.rerun = os.date("!%Y-%m-%dT%XZ")
return obj
