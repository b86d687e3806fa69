/* libgearman's own client under load: how many jobs went well and how many failed, by time.
 *
 *   cc -O2 -o failover_client failover_client.c -lgearman -lpthread
 *   ./failover_client HOST PORT1 PORT2 FUNCTION THREADS SECONDS BIN_SECONDS
 *
 * Every thread has a client of its own with both job servers, and does one foreground job after the other. Prints one
 * JSON object: began_s by CLOCK_MONOTONIC, bin_s, and a list each of good and failed jobs by bin.
 */
#include <libgearman/gearman.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_THREADS 256
#define MAX_BINS 100000

static long good[MAX_BINS], failed[MAX_BINS];
static const char *host, *function;
static int ports[2];
static double began_s, seconds, bin_s;

static double now_s(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

static void *run(void *argument)
{
  long number = (long)argument, job = 0;
  gearman_client_st *client = gearman_client_create(NULL);
  if (client == NULL || gearman_failed(gearman_client_add_server(client, host, (in_port_t)ports[0])) ||
      gearman_failed(gearman_client_add_server(client, host, (in_port_t)ports[1]))) {
    fputs("failover_client: no client\n", stderr);
    exit(1);
  }
  gearman_client_set_timeout(client, 5000);
  for (double now = now_s(); now < began_s + seconds; now = now_s()) {
    char workload[64];
    size_t result_bytes = 0;
    gearman_return_t outcome = GEARMAN_SUCCESS;
    int workload_bytes = snprintf(workload, sizeof workload, "%06ld-%012ld", number, job++);
    char *result = gearman_client_do(client, function, NULL, workload, (size_t)workload_bytes, &result_bytes, &outcome);
    int bin = (int)((now_s() - began_s) / bin_s);
    int is_good = gearman_success(outcome) && result != NULL && result_bytes == (size_t)workload_bytes &&
                  memcmp(result, workload, result_bytes) == 0;
    free(result);
    if (bin < MAX_BINS)
      __atomic_add_fetch(is_good ? &good[bin] : &failed[bin], 1, __ATOMIC_RELAXED);
  }
  gearman_client_free(client);
  return NULL;
}

int main(int argument_count, char **arguments)
{
  pthread_t threads[MAX_THREADS];
  if (argument_count != 8) {
    fputs("usage: failover_client HOST PORT1 PORT2 FUNCTION THREADS SECONDS BIN_SECONDS\n", stderr);
    return 2;
  }
  int count = atoi(arguments[5]);
  host = arguments[1];
  ports[0] = atoi(arguments[2]);
  ports[1] = atoi(arguments[3]);
  function = arguments[4];
  seconds = atof(arguments[6]);
  bin_s = atof(arguments[7]);
  if (count < 1 || count > MAX_THREADS || seconds <= 0 || bin_s <= 0 || seconds / bin_s > MAX_BINS) {
    fputs("failover_client: an argument is out of its bounds\n", stderr);
    return 2;
  }
  began_s = now_s();
  for (long number = 0; number < count; number++)
    if (pthread_create(&threads[number], NULL, run, (void *)number))
      return 1;
  for (int number = 0; number < count; number++)
    pthread_join(threads[number], NULL);
  int bins = (int)(seconds / bin_s);
  printf("{\"began_s\": %.6f, \"bin_s\": %g, \"good\": [", began_s, bin_s);
  for (int bin = 0; bin < bins; bin++)
    printf("%s%ld", bin ? ", " : "", good[bin]);
  printf("], \"failed\": [");
  for (int bin = 0; bin < bins; bin++)
    printf("%s%ld", bin ? ", " : "", failed[bin]);
  puts("]}");
  return 0;
}
