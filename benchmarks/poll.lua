-- wrk script: every request is the same GET. Writes the outcome as one line of JSON on stderr.
--
--   wrk -s poll.lua URL -- TARGET [NAME VALUE]...
--
-- NAME VALUE: further headers.

function init(arguments)
  for index = 2, #arguments, 2 do
    wrk.headers[arguments[index]] = arguments[index + 1]
  end
  whole_request = wrk.format("GET", arguments[1])
end

function request()
  return whole_request
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
