-- wrk script: every request is a POST with a payload of 20 bytes, or more, that no other request of any thread or round
-- carries (gearmand's HTTP plugin gives identical payloads one job). Writes the outcome as one line of JSON on stderr.
--
--   wrk -s unique_post.lua URL -- RUN_TAG [background|foreground [PAYLOAD_BYTES]]
--
-- RUN_TAG: eight characters that no other run against the same job server uses.

local thread_count = 0

function setup(thread)
  thread:set("thread_number", thread_count)
  thread_count = thread_count + 1
end

function init(arguments)
  local run_tag = arguments[1]
  assert(run_tag and #run_tag == 8, "the run tag must have eight characters")
  payload_format = string.format("%s%02d%%010d", run_tag, thread_number)
  if arguments[2] == "background" then
    wrk.headers["X-Gearman-Background"] = "true"
  end
  padding = string.rep("x", (tonumber(arguments[3]) or 20) - 20)
  local sample = string.format(payload_format, 0) .. padding
  local whole_request = wrk.format("POST", nil, nil, sample)
  head = string.sub(whole_request, 1, #whole_request - #sample)
  sent = 0
end

function request()
  sent = sent + 1
  return head .. string.format(payload_format, sent) .. padding
end

function done(summary, latency, requests)
  io.stderr:write(string.format(
    '{"duration_s": %.6f, "requests": %d, "received_bytes": %d, '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}, '
      .. '"latency_p50_s": %.6f, "latency_p99_s": %.6f, "latency_max_s": %.6f}\n',
    summary.duration / 1e6, summary.requests, summary.bytes,
    summary.errors.connect, summary.errors.read, summary.errors.write, summary.errors.status, summary.errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency.max / 1e6))
end
