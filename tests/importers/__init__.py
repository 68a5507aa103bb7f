"""Small ONNX models for the importers' tests."""
