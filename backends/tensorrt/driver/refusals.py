"""What stops a run or a model, and the exit status that says of what kind it is."""

from typing import Dict

PREFLIGHT, BUILD, ACCURACY, LATENCY, WRITING = 10, 11, 12, 13, 14
STAGES = {PREFLIGHT: "preflight", BUILD: "build", ACCURACY: "accuracy", LATENCY: "latency", WRITING: "writing"}


class Refusal(Exception):
    """What stops a run or a model: the exit status, where, what is wrong, the fix."""

    def __init__(self, status: int, where: str, what: str, fix: str) -> None:
        self.status, self.where, self.what, self.fix = status, where, what, fix
        super().__init__(f"{where}: {what}; {fix}")

    def as_json(self) -> Dict[str, str]:
        """For the report."""
        return {"stage": STAGES[self.status], "where": self.where, "what": self.what, "fix": self.fix}
