#!/usr/bin/env escript
-mode(compile).
%% Lookups per second of one ETS table, read from as many processes as asked.
%% usage: ets.escript KEYS READERS MILLISECONDS; prints one number.
main([KeysText, ReadersText, TimeText]) ->
    [Keys, Readers, Time] = [list_to_integer(T) || T <- [KeysText, ReadersText, TimeText]],
    Table = ets:new(names, [set, public, {read_concurrency, true}]),
    Names = list_to_tuple([name(N) || N <- lists:seq(1, Keys)]),
    [ets:insert(Table, {element(N, Names), N}) || N <- lists:seq(1, Keys)],
    persistent_term:put(names, Names),
    Self = self(),
    Start = erlang:monotonic_time(millisecond),
    [spawn_link(fun() -> Self ! {done, run(Table, Keys, R * 7919, Start + Time, 0)} end)
     || R <- lists:seq(1, Readers)],
    Total = lists:sum([receive {done, Count} -> Count end || _ <- lists:seq(1, Readers)]),
    Took = erlang:monotonic_time(millisecond) - Start,
    io:format("~p~n", [Total * 1000 div Took]).

name(N) -> iolist_to_binary(io_lib:format("backend-~16..0b", [N])).

run(Table, Keys, N, End, Count) ->
    case erlang:monotonic_time(millisecond) >= End of
        true -> Count;
        false -> run(Table, Keys, some(Table, Keys, N, 1000), End, Count + 1000)
    end.

some(_, _, N, 0) -> N;
some(Table, Keys, N, Left) ->
    Next = (N * 1103515245 + 12345) band 16#7fffffff,
    [_] = ets:lookup(Table, element(1 + Next rem Keys, persistent_term:get(names))),
    some(Table, Keys, Next, Left - 1).
