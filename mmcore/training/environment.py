"""How Lightning Fabric learns which of the processes it is in. Importing it takes a second of CPU time."""

from __future__ import annotations

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

from mmcore.training.processes import Place


class PlacedEnvironment(ClusterEnvironment):
    """Processes that were started and connected by us; nothing is read from the environment's variables."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        # Never asked for: the processes are connected already.
        return 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.place.processes

    def set_world_size(self, size: int) -> None:
        """Fixed."""

    def global_rank(self) -> int:
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        """Fixed."""

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.place.rank
