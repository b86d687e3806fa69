/* A libgearman worker that answers every job of one function with the job's own workload.
 *
 *   cc -O2 -o echo_worker echo_worker.c -lgearman
 *   ./echo_worker HOST PORT FUNCTION
 *
 * It is what most Gearman workers are: one blocking loop around libgearman, one job at a time. Workloads should stay
 * small: libgearman's worker reads a large one in quadratic time (raw_worker.py is for those).
 */
#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *echo(gearman_job_st *job, void *context, size_t *result_bytes, gearman_return_t *outcome)
{
  (void)context;
  *result_bytes = gearman_job_workload_size(job);
  char *result = malloc(*result_bytes ? *result_bytes : 1);
  if (result == NULL) {
    *outcome = GEARMAN_MEMORY_ALLOCATION_FAILURE;
    return NULL;
  }
  memcpy(result, gearman_job_workload(job), *result_bytes);
  *outcome = GEARMAN_SUCCESS;
  return result; /* libgearman frees it */
}

int main(int argument_count, char **arguments)
{
  if (argument_count != 4) {
    fprintf(stderr, "usage: %s HOST PORT FUNCTION\n", arguments[0]);
    return 2;
  }
  gearman_worker_st *worker = gearman_worker_create(NULL);
  if (worker == NULL) {
    fprintf(stderr, "%s: out of memory\n", arguments[0]);
    return 1;
  }
  if (gearman_failed(gearman_worker_add_server(worker, arguments[1], (in_port_t)atoi(arguments[2]))) ||
      gearman_failed(gearman_worker_add_function(worker, arguments[3], 0, echo, NULL))) {
    fprintf(stderr, "%s: %s\n", arguments[0], gearman_worker_error(worker));
    return 1;
  }
  while (gearman_success(gearman_worker_work(worker))) {
  }
  fprintf(stderr, "%s: %s\n", arguments[0], gearman_worker_error(worker));
  return 1;
}
