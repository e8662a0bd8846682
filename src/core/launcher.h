// What started this process, when that is one of several doing the same work: mpirun, srun, a Slurm
// array. Read from the environment alone.
#pragma once

namespace quern {

struct Launcher {
  int rank = 0, size = 1;
  int local_size = 1;     // of those on this machine
  const char* name = "";  // "Open MPI", "MPI", "Slurm", "a Slurm array"; empty: nobody
};

// OMPI_COMM_WORLD_*, PMI_* and MPI_LOCALNRANKS, SLURM_PROCID and SLURM_NTASKS, SLURM_ARRAY_TASK_*;
// numbers that are none count as absent.
Launcher launcher() noexcept;

// Threads of this process: `wanted`, or where that is 0 and a launcher has started several on this
// machine its cores shared out, unless the launcher has bound each to some. 0: all cores.
int threads_of_process(int wanted);

}  // namespace quern
