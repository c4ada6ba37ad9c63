"""Stage export: writes a fitted model as ONNX, TorchScript or OpenVINO, and compares each with the original."""
