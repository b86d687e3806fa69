-- wrk script: every request is a POST with a payload of 20 bytes, or more, that no other request of any thread or round
-- carries (gearmand's HTTP plugin gives identical payloads one job). Writes the outcome as one line of JSON on stderr.
--
--   wrk -s unique_post.lua URL -- RUN_TAG [background|foreground [PAYLOAD_BYTES]]
--   wrk -s unique_post.lua URL -- RUN_TAG head HEAD
--
-- RUN_TAG: eight characters that no other run against the same job server uses, hexadecimal digits with a HEAD. HEAD is
-- the whole head of a request with a payload of 20 bytes, as shapes.py writes it: ten digits that no other request has
-- take the place of each %s.

local thread_count = 0

function setup(thread)
  thread:set("thread_number", thread_count)
  thread_count = thread_count + 1
end

function init(arguments)
  local run_tag = arguments[1]
  assert(run_tag and #run_tag == 8, "the run tag must have eight characters")
  payload_format = string.format("%s%02d%%010d", run_tag, thread_number)
  sent = 0
  if arguments[2] == "head" then
    head_format = assert(arguments[3], "a head must follow")
    -- Threads are far apart, and so are runs.
    first = tonumber(run_tag, 16) + thread_number * 1e9
    padding = ""
    if string.find(head_format, "%s", 1, true) then
      request = never_repeating_request
    else
      head = head_format
    end
    return
  end
  if arguments[2] == "background" then
    wrk.headers["X-Gearman-Background"] = "true"
  end
  padding = string.rep("x", (tonumber(arguments[3]) or 20) - 20)
  local sample = string.format(payload_format, 0) .. padding
  local whole_request = wrk.format("POST", nil, nil, sample)
  head = string.sub(whole_request, 1, #whole_request - #sample)
end

function request()
  sent = sent + 1
  return head .. string.format(payload_format, sent) .. padding
end

function never_repeating_request()
  sent = sent + 1
  local digits = string.format("%010d", (first + sent) % 1e10)
  -- A format takes no more of what follows it than it has places.
  return string.format(head_format, digits, digits, digits, digits) .. string.format(payload_format, sent)
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
