"""Platform files for SimGrid: clusters of one rank a host, and the numbers that they are made of."""

# A cluster of 2020 or later: 100 Gbit/s a link, each direction for itself. Sending and receiving a message cost the
# processor half a microsecond each; a rank adds 20 GB/s.
LINK_BYTES_PER_SECOND = 12.5e9
LINK_LATENCY = 250e-9
OVERHEAD = 0.5e-6  # of the sender; as much again of the receiver
SECONDS_PER_BYTE_ADDED = 0.05e-9

# The same for the cost model, which knows no hops: as between hosts of different leaf switches (4 links).
MODEL = {"alpha": 2 * OVERHEAD + 4 * LINK_LATENCY, "beta": 1 / LINK_BYTES_PER_SECOND, "gamma": SECONDS_PER_BYTE_ADDED}

# Two levels, twice as many hosts under a leaf switch as it has links up. As SimGrid writes it: levels; hosts or switches
# below each switch; links up from each; links side by side.
FAT_TREES = {16: "2;4,4;1,2;1,1", 64: "2;8,8;1,4;1,1", 256: "2;16,16;1,8;1,1", 1024: "2;32,32;1,16;1,1"}

# Groups, chassis a group, routers a chassis (each with its number of links side by side), hosts a router. One link
# between two groups. (SimGrid 3.32 needs as many routers in a chassis as there are groups.)
DRAGONFLIES = {16: "2,1;2,1;2,1;2", 64: "4,1;2,1;4,1;2", 256: "8,1;2,1;8,1;2", 1024: "16,1;2,1;16,1;2"}

KINDS = {"fat tree": ("FAT_TREE", FAT_TREES), "dragonfly": ("DRAGONFLY", DRAGONFLIES)}


def platform(kind, ranks):
    """The platform file's text."""
    topology, shapes = KINDS[kind]
    return f"""<?xml version='1.0'?>
<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<platform version="4.1">
  <cluster id="cluster" prefix="host" suffix="" radical="0-{ranks - 1}" speed="1Gf" bw="{LINK_BYTES_PER_SECOND:.0f}Bps"
    lat="{LINK_LATENCY * 1e9:.0f}ns" sharing_policy="SPLITDUPLEX" topology="{topology}" topo_parameters="{shapes[ranks]}"/>
</platform>
"""


def hosts(ranks):
    """The host file's text: rank r is on host r."""
    return "".join(f"host{rank}\n" for rank in range(ranks))


def options():
    """What smpirun is told: time passes as stated above and in no other way."""
    return [
        "--cfg=smpi/privatization:no", "--cfg=smpi/simulate-computation:no", "--log=root.thres:error",
        "--cfg=smpi/bw-factor:0:1", "--cfg=smpi/lat-factor:0:1", "--cfg=smpi/shared-malloc-blocksize:16777216",
        f"--cfg=smpi/ois:0:{OVERHEAD}:0", f"--cfg=smpi/or:0:{OVERHEAD}:0",
    ]


def bounds(ranks, size):
    """Seconds that nothing on such a cluster can beat: (latency, bandwidth, reduction), each for itself.

    A round takes a message at least its sender's overhead and two links; see bounds() in allreduce/cost.hpp.
    """
    rounds = (ranks - 1).bit_length()
    part = size * (ranks - 1) / ranks
    return (rounds * (OVERHEAD + 2 * LINK_LATENCY), 2 * part / LINK_BYTES_PER_SECOND, part * SECONDS_PER_BYTE_ADDED)
