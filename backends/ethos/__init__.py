"""Boards with an Arm Ethos-U NPU: TFLite, compiled by Vela."""
