from converge_bench import bench

__all__ = ["bench"]
