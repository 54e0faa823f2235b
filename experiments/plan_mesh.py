"""Which mesh should I train a decoder on?

Prices a training step of a decoder on accelerators, on paper: bytes of memory and over
each link, time of the products and of the messages, and the share of the peak that is
left. Ranks the meshes of the devices, and names one. Nothing is run, and JAX is not
needed; docs/scale.md derives the formulas.

    python -m experiments.plan_mesh
    python -m experiments.plan_mesh --model=8b --device=v5e --devices=256
    python -m experiments.plan_mesh --model=8b --mesh=data:16,model:4 --fsdp
    python -m experiments.plan_mesh --features=1024 --hidden=4096 --layers=24
"""

from experiments import launch
from ffnlab.models.mesh_plan import MeshPlanConfig, plan_mesh

if __name__ == "__main__":
    launch.main(MeshPlanConfig, plan_mesh, __doc__, compiles=False)
