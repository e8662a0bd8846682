/* What the program asks of a message-passing library. Built once for each MPI that is there, and
   loaded by the program when a launcher has started several of it: the two share no type of MPI. */
#ifndef QUERN_MPI_PLUGIN_H
#define QUERN_MPI_PLUGIN_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUERN_MPI_VERSION 1

typedef struct {
  int version; /* QUERN_MPI_VERSION */
  /* Begins; called once, on the thread that makes all other calls. 0: done. */
  int (*start)(int* rank, int* size);
  /* Sends and receives at the same time; either may be nothing (0 bytes). 0: done, 1: `seconds` are
     over, 2: the library failed. */
  int (*exchange)(const void* out, size_t out_bytes, int to, void* in, size_t in_bytes, int from,
                  double seconds);
  void (*finish)(void);
  void (*abort)(int code); /* ends all processes of the job */
} QuernMpi;

const QuernMpi* quern_mpi(void);

#ifdef __cplusplus
}
#endif

#endif
