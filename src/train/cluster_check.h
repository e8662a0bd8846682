// What the machines of a job and the links between them give, measured by all ranks together.
#pragma once

#include <string>
#include <vector>

#include "compute/cpu/cpu_training_backend.h"
#include "train/communicator.h"

namespace quern {

struct ClusterReport {
  struct Rank {
    std::string host;
    int threads = 0;
    double gflops = 0;         // products of this rank while all ranks compute
    double read_gb_per_s = 0;  // memory, likewise
  };
  struct Link {
    int a = 0, b = 0;
    bool same_host = false;
    double gb_per_s = 0;      // each way at a time, of a few megabytes: the best of three
    double microseconds = 0;  // of 8 bytes there and back at once
  };
  struct AllReduce {
    size_t bytes = 0;
    double seconds = 0;
    double bus_gb_per_s = 0;  // 2 (n - 1) / n of the bytes, over the seconds: what each rank sends
  };
  std::vector<Rank> ranks;
  std::vector<Link> links;
  std::vector<AllReduce> all_reduces;
  // What stands out, in words: a rank with less than 0.7 of the median's products, a link with less
  // than half of the median of its kind.
  std::vector<std::string> problems;
};

// Every rank calls it; the report is whole on the first.
ClusterReport check_cluster(Communicator& ranks, CpuTrainingBackend& backend, ThreadPool& pool,
                            const std::string& host);

}  // namespace quern
