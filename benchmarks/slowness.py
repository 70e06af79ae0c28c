"""How the file servers of the benchmark are slow: what nginx is told where it hands out a blob, and beside that."""

from __future__ import annotations

CDN = "access_by_lua_block { ngx.sleep(0.02) } limit_rate 40m;"
# The first connection that asks for a blob stays slow for as long as it lives, whatever it asks for; X-Rate tells.
PINNED = """access_by_lua_block {
      local seen = ngx.shared.seen
      seen:add("first", ngx.var.connection)
      ngx.sleep(0.02)
      ngx.var.limit_rate = seen:get("first") == ngx.var.connection and "50k" or "40m"
      ngx.header["X-Rate"] = ngx.var.limit_rate
    }"""
# Of the first part that ends a blob, half comes; the connection stays open and says no more.
SILENT = """access_by_lua_block {
      ngx.sleep(0.02)
      local first, last = (ngx.var.http_range or ""):match("^bytes=(%d+)-(%d*)$")
      first, last = tonumber(first), tonumber(last)
      if not first or first == 0 then return end
      local file = assert(io.open(ngx.var.request_filename, "rb"))
      local size = file:seek("end")
      if (last or size) < size - 1 or not ngx.shared.seen:add(ngx.var.hex, true) then
        file:close()
        return
      end
      local length = size - first
      ngx.status = 206
      ngx.header["Content-Range"] = ("bytes %d-%d/%d"):format(first, size - 1, size)
      ngx.header["Content-Length"] = length
      file:seek("set", first)
      for at = 0, math.floor(length / 2) - 1, 1048576 do
        ngx.print(file:read(math.min(1048576, math.floor(length / 2) - at)))
        ngx.flush(true)
      end
      file:close()
      ngx.sleep(600)
      ngx.exit(ngx.OK)
    } limit_rate 40m;"""
SCRIPTED = {"cdn": CDN, "pinned": PINNED, "silent": SILENT}
# One connection too many is answered with a 503, as nginx does by default.
LIMITED = {f"limited-{most}": f"limit_conn busy {most}; limit_rate 1m;" for most in (1, 2)}
SHARED = {  # by both workers
    **dict.fromkeys(("pinned", "silent"), "lua_shared_dict seen 64k;"),
    **dict.fromkeys(LIMITED, "limit_conn_zone $server_port zone=busy:1m;"),
}
