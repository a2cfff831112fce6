"""Training of graphs: the parts of ``finetune`` and ``distill``. Torch is imported by what runs, not by the passes."""
