"""Stage export: a fitted model as ONNX, TorchScript or OpenVINO, each compared with the original."""
