#include "mpi_plugin.h"

#include <mpi.h>
#include <time.h>

#include <algorithm>
#include <vector>

namespace {

constexpr size_t kMessage = size_t{1} << 28;  // MPI counts in int

double now() {
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

int start(int* rank, int* size) {
  int given = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &given) != MPI_SUCCESS) return 1;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, rank);
  MPI_Comm_size(MPI_COMM_WORLD, size);
  return 0;
}

int exchange(const void* out, size_t out_bytes, int to, void* in, size_t in_bytes, int from,
             double seconds) {
  std::vector<MPI_Request> requests;
  for (size_t at = 0; at < in_bytes; at += kMessage) {
    requests.emplace_back();
    if (MPI_Irecv(static_cast<char*>(in) + at, static_cast<int>(std::min(kMessage, in_bytes - at)),
                  MPI_BYTE, from, 0, MPI_COMM_WORLD, &requests.back()) != MPI_SUCCESS) {
      return 2;
    }
  }
  for (size_t at = 0; at < out_bytes; at += kMessage) {
    requests.emplace_back();
    if (MPI_Isend(static_cast<const char*>(out) + at,
                  static_cast<int>(std::min(kMessage, out_bytes - at)), MPI_BYTE, to, 0,
                  MPI_COMM_WORLD, &requests.back()) != MPI_SUCCESS) {
      return 2;
    }
  }
  const double until = now() + seconds;
  for (int tries = 0;; ++tries) {
    int done = 0;
    const int code =
        MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
    if (code != MPI_SUCCESS) return 2;
    if (done != 0) return 0;
    if (now() > until) return 1;
    // Short waits are spent looking, long ones asleep: ranks may share their cores.
    if (tries > 200) {
      const timespec pause = {0, 50'000};
      nanosleep(&pause, nullptr);
    }
  }
}

void finish() { MPI_Finalize(); }
void abort_job(int code) { MPI_Abort(MPI_COMM_WORLD, code); }

constexpr QuernMpi kPlugin = {QUERN_MPI_VERSION, start, exchange, finish, abort_job};

}  // namespace

const QuernMpi* quern_mpi(void) { return &kPlugin; }
